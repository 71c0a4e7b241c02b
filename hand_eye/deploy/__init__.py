"""What runs on a robot: exported policies, the wire format, set-points."""
