"""What people see: summaries of stored studies as a terminal table, CSV, JSON, SVG charts and one HTML page.

Nothing is imported here, so that `fanin --help` does not pay for charts. Take what is needed from its file:
`summary` (summarize), `table` (print_table), `export` (to_json, write_json, write_csv), `charts` (charts), `page`
(write_page), `digit` (print_digit).
"""
