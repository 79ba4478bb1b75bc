"""What the kit says of thousands of defects that nobody has computed: screening."""
