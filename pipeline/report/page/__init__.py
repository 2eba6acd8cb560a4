"""Pages to look at and listen to: HTML files that open from disk, ask no server for anything and run no script.

    page.py          write_page: one run
    comparison.py    comparison_page: several runs side by side
    render.py        templates, and the numbers and units in them
    sections.py      report.json -> what the template of one run shows
    timing.py        the part of it about size and speed
    place.py         where the run stands among fp32 and earlier runs: the front
    search.py        what a search for a mixture of precisions has tried and chosen
    scores.py        intervals of a report's metrics, and its worst samples
    transcripts.py   words with their errors marked
    listening.py     the audio before and after, and its spectrograms
    plots.py         the pictures, drawn by matplotlib
    svg.py           a matplotlib figure -> SVG that takes its colours from the page
    templates/       Jinja2, and the style sheet

Importing the package loads none of them.
"""
