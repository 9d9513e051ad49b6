"""Values in, bytes out: the formats that leave the process. No sockets here."""
