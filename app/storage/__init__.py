"""SQL and nothing else: tables, the unit of work, one repository per noun."""
