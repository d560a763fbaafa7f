"""Turn sessions into pairs of frames that show the same view to a few hundredths of a pixel."""
