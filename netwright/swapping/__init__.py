"""What `netwright.swap` is made of: what goes in, traced calls, fits, measurements, gates, the report."""
