"""What could not be checked where this package was built, checked on the machine and the checkpoint of its user."""
