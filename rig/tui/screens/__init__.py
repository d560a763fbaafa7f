"""The screens: three modes and the modal cards."""
