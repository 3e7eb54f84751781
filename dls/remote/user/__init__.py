"""What is kept of this computer's user: profiles of hosts, hosts used before, agreements."""
