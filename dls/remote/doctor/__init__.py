"""What lies between this computer and a server on a host, looked at piece by piece and changed nowhere."""
