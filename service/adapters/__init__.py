"""One technology a file, each behind a port of the rooms above; foreign errors end here."""
