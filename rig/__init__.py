"""Drive the capture rig and record sessions."""
