"""The command line: arguments become a request, the job's events become a progress line, records become files."""
