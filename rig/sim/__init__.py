"""The simulated rig: controller, camera and world in a process of its own."""
