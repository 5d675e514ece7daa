"""Where things run: `local` is this machine, `kubernetes` a real Kubeflow. Same files, same ports."""
