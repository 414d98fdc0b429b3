"use strict";
/* Charts: of the dashboard, which a stream renews each second, and of one session's heartbeats. */
(() => {
  const { link, loggedOut, byId, get } = lastpong;
  const KEPT = 900;
  const COLORS = {
    light: ["#0b6e4f", "#c2570c", "#2f5fd0", "#8a3ffc", "#b42318", "#6b7280", "#0e7490", "#a16207"],
    dark: ["#3ecf8e", "#ff9f57", "#7ab3ff", "#c9a3ff", "#ff8a7a", "#9aa5b1", "#5fd4e6", "#e3c04a"],
  };
  const dark = () => getComputedStyle(document.documentElement).colorScheme === "dark" ||
    (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  const color = (n) => COLORS[dark() ? "dark" : "light"][n % 8];
  const line = () => (dark() ? "#2c343e" : "#e4e7eb");
  const ink = () => (dark() ? "#9aa5b1" : "#57606a");
  const number = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en").replaceAll(",", "\u202f"));
  const short = (ms) => (ms === null || ms === undefined ? "–" : ms < 10 ? ms.toFixed(2) : ms < 100 ? ms.toFixed(1) : number(Math.round(ms)));

  const clock = (at, step) => new Date(at * 1000).toLocaleTimeString("en-GB", step < 60 ? {} : { hour: "2-digit", minute: "2-digit" });

  // What the pointer is at, or the newest where it is nowhere.
  const pointed = (u, value, series, at) => (at === null || at === undefined ? u.data?.[series]?.at(-1) : value);

  const plots = [];
  // One chart: its place, and its lines by name. `from` makes of a point the values of those lines.
  function plot(id, names, show, options = {}) {
    const place = byId(id);
    if (!place) return null;
    const chart = { place, names, data: null, u: null };
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 }, font: "12px system-ui, sans-serif" };
    chart.make = () => {
      chart.u?.destroy();
      const series = chart.names.map((name, n) => ({
        label: name, stroke: () => color(n), width: 1.5, points: { show: false }, value: (...of) => show(pointed(...of)), ...(options.series || {}), ...(options.each?.[n] || {}),
      }));
      chart.u = new uPlot({
        width: Math.max(place.clientWidth, 200), height: 190, cursor: { y: false, drag: { x: false, y: false } }, legend: { live: true },
        scales: { x: { time: true }, y: { range: (_, min, max) => [0, Math.max(max * 1.1, options.least || 1)] } },
        series: [{ value: (...of) => (pointed(...of) ? clock(pointed(...of), 1) : "–") }, ...series],
        axes: [{ ...axis, space: 70, values: (_, ticks, __, ___, step) => ticks.map((at) => clock(at, step)) }, { ...axis, size: 56, values: (_, ticks) => ticks.map((v) => (v >= 10000 ? `${number(v / 1000)}k` : number(v))) }],
      }, chart.data || [[], ...names.map(() => [])], place);
    };
    chart.set = (data) => {
      chart.data = data;
      if (!chart.u || chart.u.series.length !== data.length) chart.make(); else chart.u.setData(data);
    };
    new ResizeObserver(() => chart.u && place.clientWidth > 0 && place.clientWidth !== chart.u.width && chart.u.setSize({ width: place.clientWidth, height: 190 })).observe(place);
    plots.push(chart);
    return chart;
  }
  document.addEventListener("theme", () => plots.forEach((chart) => chart.u && chart.make()));

  function dashboard() {
    const charts = {
      sessions: plot("plot-sessions", ["live", "suspect", "starting"], number, { least: 5 }),
      ends: plot("plot-ends", [], (v) => number(v && Math.round(v * 100) / 100), { least: 1, series: { paths: uPlot.paths.stepped({ align: -1 }) } }),
      rtt: plot("plot-rtt", ["p50", "p95", "p99"], short),
      detection: plot("plot-detection", ["p50", "p95", "p99"], short),
      events: plot("plot-events", ["events"], number, { least: 5 }),
      lag: plot("plot-lag", ["SSE", "WebSocket", "stream in Redis"], number, { least: 5 }),
    };
    let points = [], last = Date.now();
    const set = (id, text) => { const place = byId(`tile-${id}`); if (place.textContent !== text) place.textContent = text; };

    function draw() {
      const span = Number(byId("span").value);
      const shown = points.slice(-span);
      if (!shown.length) return;
      const x = shown.map((p) => p.t / 1000);
      const three = (of) => [0, 1, 2].map((n) => shown.map((p) => (of(p) ? of(p)[n] : null)));
      charts.sessions.set([x, ...[1, 2, 0].map((n) => shown.map((p) => p.s[n]))]);
      const reasons = [...new Set(shown.flatMap((p) => Object.keys(p.e)))].sort();
      charts.ends.names = reasons.length ? reasons : ["none"];
      if (charts.ends.u && charts.ends.names.join() !== charts.ends.drawn) charts.ends.u.destroy(), charts.ends.u = null;
      charts.ends.drawn = charts.ends.names.join();
      // Some seconds together, or a long time looks like a hedge.
      const step = Math.max(1, Math.round(span / 90)), bins = new Map();
      // One bin alone would be a chart without a length.
      bins.set(Math.floor(shown[0].t / 1000 / step - 1) * step, {});
      for (const p of shown) {
        const at = Math.floor(p.t / 1000 / step) * step;
        if (!bins.has(at)) bins.set(at, {});
        for (const [reason, count] of Object.entries(p.e)) bins.get(at)[reason] = (bins.get(at)[reason] || 0) + count;
      }
      charts.ends.set([[...bins.keys()], ...charts.ends.names.map((reason) => [...bins.values()].map((bin) => (bin[reason] || 0) / step))]);
      charts.rtt.set([x, ...three((p) => p.r)]);
      charts.detection.set([x, ...three((p) => p.d)]);
      charts.events.set([x, shown.map((p) => p.v)]);
      charts.lag.set([x, ...[0, 1, 2].map((n) => shown.map((p) => p.l[n]))]);
    }

    function tiles() {
      const p = points.at(-1);
      if (!p) return;
      set("live", number(p.s[1])); set("suspect", number(p.s[2])); set("starting", number(p.s[0]));
      const minute = points.slice(-60).flatMap((point) => Object.values(point.e)).reduce((sum, n) => sum + n, 0);
      set("ends", number(minute)); set("rate", number(p.v));
      set("rtt", short(p.r?.[2])); set("detection", short(p.d?.[2])); set("lag", number(Math.max(...p.l)));
      const words = ["closed", "half-open", "open"], classes = ["good", "warn", "bad"];
      fill("breakers", Object.entries(p.b).flatMap(([store, state]) => [tag(`${store}: ${words[state]}`, classes[state]), " "])
        .concat(p.j ? [tag(`${number(p.j)} in the journal`, "warn")] : []));
    }

    const cell = (content, kind) => { const td = document.createElement("td"); td.append(content); if (kind) td.className = kind; return td; };
    const row = (...cells) => { const tr = document.createElement("tr"); tr.append(...cells); return tr; };
    function tag(text, kind) { const span = document.createElement("span"); span.className = `tag ${kind}`; span.textContent = text; return span; }
    function fill(id, parts) { byId(id).replaceChildren(...parts); }
    function anchor(href, text) { const a = document.createElement("a"); a.href = href; a.textContent = text; return a; }
    const SOURCES = { own: "this node", live_state: "live state", record: "the record" };

    let listed = "";
    function lists({ nodes, recent }) {
      if (nodes.length) fill("nodes", nodes.map((node) => row(
        cell(anchor(`/debug/connections?node=${encodeURIComponent(node.node_id)}`, node.node_id)),
        cell(tag(node.state, node.state === "live" ? "good" : "bad")), cell(number(node.sessions), "num"),
        cell(SOURCES[node.source]), cell(`${Math.round(node.age_ms / 1000)} s`, "num"))));
      // A list that did not change keeps its focus.
      if (!recent.length || String(recent[0].seq) === listed) return;
      listed = String(recent[0].seq);
      const focus = document.activeElement?.closest("#recent") ? document.activeElement.getAttribute("href") : null;
      fill("recent", recent.map((event) => row(
        cell(clock(Date.parse(event.at) / 1000, 1)), cell(anchor(`/debug/connections/${event.session_id}`, event.device_id)),
        cell(event.kind === "connected" ? tag("connected", "good") : tag(event.reason, "bad")))));
      if (focus) [...byId("recent").querySelectorAll("a")].find((a) => a.getAttribute("href") === focus)?.focus();
    }

    function listen() {
      const stream = new EventSource("/debug/live");
      stream.addEventListener("history", (event) => {
        const told = JSON.parse(event.data);
        points = told.points; last = Date.now();
        link(true); of(told.node); tiles(); draw();
      });
      stream.addEventListener("pulse", (event) => {
        const told = JSON.parse(event.data);
        last = Date.now();
        link(true);
        points.push(told.point);
        if (points.length > KEPT) points.splice(0, points.length - KEPT);
        of(told.node);
        if (document.hidden) return;
        tiles(); lists(told); drain(told); draw();
      });
      stream.onerror = async () => {
        if (stream.readyState !== EventSource.CLOSED) return;
        // It tries no more by itself where it was refused.
        const answer = await get("/debug/performance").catch(() => null);
        if (answer?.status === 401) return loggedOut();
        setTimeout(listen, 3000);
      };
      addEventListener("pagehide", () => stream.close());
    }
    setInterval(() => { if (Date.now() - last > 5000) link(false, null, new Date(last)); }, 1000);
    byId("span").addEventListener("change", draw);
    document.addEventListener("visibilitychange", () => { if (!document.hidden) { tiles(); draw(); } });
    listen();
  }

  // Behind a balancer a stream that was lost may go on at another node: then all of this page is of that one.
  function of(node) {
    const name = byId("node"), before = name.textContent;
    if (before === node) return;
    name.textContent = node;
    for (const button of document.querySelectorAll("[data-node]")) {
      button.dataset.node = node;
      button.textContent = button.textContent.replace(before, node);
    }
    byId("moved").textContent = `Since ${clock(Date.now() / 1000, 1)} this page is of ${node}: the connection to ${before} was lost, and another node answered.`;
    byId("moved").hidden = false;
  }

  // How far a drain is, whoever began it.
  function drain({ node, drain }) {
    byId("drain").hidden = !drain;
    const button = document.querySelector("[data-act=drain]");
    if (button) button.textContent = drain ? `Drain ${node} over another time` : `Drain ${node}`;
    if (!drain) return;
    byId("drain-bar").value = drain.of ? drain.ended / drain.of : 1;
    const text = `${node} is draining: ${number(drain.ended)} of ${number(drain.of)} sessions ended, ${number(drain.live)} are left.`;
    if (byId("drain-text").textContent !== text) byId("drain-text").textContent = text;
  }

  function heartbeats() {
    const place = byId("beats");
    const chart = plot("plot-beats", ["answered", "late", "missed"], short, {
      series: { spanGaps: false, points: { show: true, size: 5 } },
      each: [{ spanGaps: true }, { paths: () => null, points: { show: true, size: 9 } }, { paths: () => null, stroke: () => color(4), points: { show: true, size: 11 } }],
    });
    const draw = () => {
      const beats = JSON.parse(place.dataset.beats || "[]");
      byId("plot-beats").hidden = !beats.length;
      if (!beats.length) return;
      const of = (outcome, value) => beats.map((beat) => (beat.outcome === outcome ? value(beat) : null));
      chart.set([beats.map((beat) => Date.parse(beat.at) / 1000), of("answered", (b) => b.rtt_ms), of("late", (b) => b.rtt_ms ?? 0), of("missed", () => 0)]);
      const missed = beats.filter((beat) => beat.outcome === "missed").length;
      byId("plot-beats").setAttribute("aria-label", `${beats.length} heartbeats, ${missed} missed; the table below has the last ones`);
    };
    document.addEventListener("renewed", draw);
    draw();
  }

  addEventListener("DOMContentLoaded", () => {
    if (byId("plot-sessions")) dashboard();
    if (byId("plot-beats")) heartbeats();
  });
})();
