"""Pages to look at and listen to: HTML files that open from disk and ask no server for anything.

A page runs at most the one script that it ships with, which it allows by its hash; all of it can be read without.

    run_page.py         one run
    comparison_page.py  several runs side by side
    index_page.py       all runs below a directory, to filter
    language.py         the texts in the language of the page; templates/chinese.yaml holds the translations
    render.py           templates, and the numbers and units in them
    sections.py         report.json -> what the template of one run shows
    timing_section.py   the part of it about size and speed
    pareto_position.py  where the run stands among fp32 and earlier runs
    search_section.py   what a search for a mixture of precisions has tried and chosen
    length_table.py     error rates by the length of the recordings
    transcripts.py      words with their errors marked
    listening.py        the audio before and after beside its recording, and its spectrograms
    failures.py         runs without numbers, folded away
    index_charts.py     the pictures of the index
    plots.py            the pictures, drawn by matplotlib where it is installed
    bar_chart.py        bars, drawn without it
    label_places.py     where the labels of points go
    svg.py              a matplotlib figure -> SVG that takes its colours from the page
    templates/          Jinja2, the style sheet, the scripts, the translations

Importing the package loads none of them.
"""
