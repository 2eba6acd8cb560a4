"""Pages to look at and listen to: HTML files that open from disk, ask no server for anything and run no script.

    run_page.py         one run
    comparison_page.py  several runs side by side
    render.py           templates, and the numbers and units in them
    sections.py         report.json -> what the template of one run shows
    timing_section.py   the part of it about size and speed
    pareto_position.py  where the run stands among fp32 and earlier runs
    search_section.py   what a search for a mixture of precisions has tried and chosen
    transcripts.py      words with their errors marked
    listening.py        the audio before and after, and its spectrograms
    plots.py            the pictures, drawn by matplotlib where it is installed
    bar_chart.py        bars, drawn without it
    svg.py              a matplotlib figure -> SVG that takes its colours from the page
    templates/          Jinja2, and the style sheet

Importing the package loads none of them.
"""
