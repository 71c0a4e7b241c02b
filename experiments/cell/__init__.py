"""The results of `check_cell`: `cell_tables` sums rows up, `cell_page` writes them."""
