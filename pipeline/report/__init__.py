"""The report: report.json's schema, the table in the terminal, several runs side by side."""
