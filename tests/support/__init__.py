"""What tests share: the finished ci experiment, small models and data, stand-ins, waiting."""
