# /// script
# [tool.marimo.display]
# theme = "system"
# ///
"""marimo app: input elements, and the pages that depend on them.

The server passes the `Dashboard` with each request, so nothing is imported from the package.
"""

# marimo infers inputs and outputs of cells from their code, without types
# mypy: disable-error-code="no-untyped-def, no-untyped-call, union-attr"

import marimo

app = marimo.App(width="full", app_title="PolyAI warehouse", css_file="style.css")


@app.cell
def _start():
    import marimo as mo

    dashboard = mo.app_meta().request.meta["dashboard"]
    pages = mo.app_meta().request.meta["pages"]
    periods = mo.app_meta().request.meta["periods"]
    start = dashboard.start(mo.query_params().to_dict())

    def show(markup):
        # marimo does not treat a subclass of str as text
        return mo.Html(str(markup))

    mo.stop(start.choices is None, show(start.problem))
    get_opened, set_opened = mo.state(start.opened)
    return dashboard, get_opened, mo, pages, periods, set_opened, show, start


@app.cell
def _navigation(dashboard, mo, pages, set_opened, show, start):
    tabs = mo.ui.tabs(
        dict.fromkeys(pages, ""), value=start.page, on_change=lambda _: set_opened(None)
    )
    show(dashboard.head(tabs.text))
    return (tabs,)


@app.cell
def _filters(dashboard, mo, periods, start):
    def named(options, value):
        return next(name for name, one in options.items() if one == value)

    def choose(label, options, value):
        return mo.ui.dropdown(options, value=named(options, value), label=label, full_width=True)

    period = choose("Period", periods, start.period)
    days = mo.ui.date_range(value=(start.days.since, start.days.until), label="Days")
    agent, channel, environment = (
        choose(field.capitalize(), dashboard.options(field, start.choices), start.chosen[field])
        for field in ("agent", "channel", "environment")
    )
    return agent, channel, choose, days, environment, period


@app.cell
def _variants(agent, choose, dashboard, start):
    offered = dashboard.options("variant", start.choices, agent.value)
    asked = start.chosen["variant"]
    variant = choose("Variant", offered, asked if asked in offered.values() else None)
    return (variant,)


@app.cell
def _selection(agent, channel, dashboard, days, environment, period, start, variant):
    selection = dashboard.selection(
        start.choices,
        period.value,
        days.value,
        agent.value,
        channel.value,
        environment.value,
        variant.value,
    )
    return (selection,)


@app.cell
def _show_filters(
    agent,
    channel,
    dashboard,
    days,
    environment,
    get_opened,
    mo,
    pages,
    period,
    selection,
    show,
    tabs,
    variant,
):
    mo.stop(pages[tabs.value] == "data" or get_opened() is not None)
    shown = [period, agent, channel, environment, variant]
    if period.value == "custom":
        shown.insert(1, days)
    show(dashboard.filters([element.text for element in shown], selection, pages[tabs.value]))
    return


@app.cell
def _show_page(dashboard, get_opened, mo, pages, selection, show, start, tabs):
    mo.stop(get_opened() is not None or pages[tabs.value] in ("conversations", "reviews"))
    show(dashboard.page(pages[tabs.value], selection, start.choices))
    return


@app.cell
def _narrowing(dashboard, mo, start):
    search = mo.ui.text(
        value=start.search,
        label="Search",
        placeholder="In summaries, notes and transcripts",
        debounce=True,
        full_width=True,
    )
    outcome = mo.ui.dropdown(
        dashboard.outcomes(), value="Any outcome", label="Outcome", full_width=True
    )
    return outcome, search


@app.cell
def _turning(mo, outcome, search, selection, tabs):
    # runs again when the list changes, which resets it to the first page
    listed = outcome.value, search.value, selection, tabs.value
    get_number, set_number = mo.state(0)
    return get_number, listed, set_number


@app.cell
def _find(dashboard, get_number, get_opened, outcome, pages, search, selection, tabs):
    is_list = get_opened() is None and pages[tabs.value] in ("conversations", "reviews")
    found = (
        dashboard.find(pages[tabs.value], selection, search.value, outcome.value, get_number())
        if is_list
        else None
    )
    return (found,)


@app.cell
def _show_list(dashboard, found, mo, outcome, pages, search, set_number, set_opened, show, tabs):
    mo.stop(found is None)
    openers = mo.ui.array(
        [
            mo.ui.button(label="Open", on_click=lambda _, key=key: set_opened(key))
            for key in found.keys
        ]
    )
    turners = [
        mo.ui.button(
            label=label,
            disabled=not 0 <= number < found.pages,
            on_click=lambda _, number=number: set_number(number),
        )
        for label, number in (("Previous", found.page - 1), ("Next", found.page + 1))
    ]
    narrowed = [search, outcome] if pages[tabs.value] == "conversations" else []
    show(
        dashboard.listed(
            pages[tabs.value],
            found,
            [opener.text for opener in openers],
            dashboard.controls(
                [element.text for element in narrowed], [turner.text for turner in turners]
            ),
        )
    )
    return


@app.cell
def _show_conversation(dashboard, get_opened, mo, set_opened, show):
    mo.stop(get_opened() is None)
    opened = get_opened()
    back = mo.ui.button(label="← Back to the list", on_click=lambda _: set_opened(None))
    player = mo.lazy(lambda: show(dashboard.player(opened)))
    show(dashboard.conversation(opened, back.text, player.text))
    return


@app.cell
def _address(dashboard, get_opened, mo, period, search, selection, tabs):
    _query = mo.query_params()
    for _key, _value in dashboard.address(
        tabs.value, get_opened(), period.value, selection, search.value
    ).items():
        if _query.get(_key) != _value:
            _query.set(_key, _value)
    return


if __name__ == "__main__":
    app.run()
