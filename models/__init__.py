"""Image-restoration systems and the one loop that trains them; needs an export, not a rig."""
