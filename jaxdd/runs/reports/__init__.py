"""Reports: HTML pages, tables and figures of finished runs."""
