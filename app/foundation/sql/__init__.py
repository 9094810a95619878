"""SQL of every capability: engines, transactions, types, statements, migrations."""
