"use strict";
/* What every page does by itself: its theme, keeping itself new, and actions. See src/http/pages. */
const lastpong = (() => {
  const root = document.documentElement;
  const EVERY = 2000;
  const byId = (id) => document.getElementById(id);

  // Before the page is drawn, so that it is not drawn twice.
  const kept = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  if (kept()) root.dataset.theme = kept();

  function theme() {
    const button = byId("theme");
    if (!button) return;
    const next = { system: "light", light: "dark", dark: "system" };
    const show = () => { button.textContent = `Theme: ${root.dataset.theme || "system"}`; };
    button.addEventListener("click", () => {
      const to = next[root.dataset.theme || "system"];
      if (to === "system") delete root.dataset.theme; else root.dataset.theme = to;
      try { if (to === "system") localStorage.removeItem("theme"); else localStorage.setItem("theme", to); } catch { /* for this page alone, then */ }
      show();
      document.dispatchEvent(new Event("theme"));
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new Event("theme")));
    show();
    button.hidden = false;
  }

  // A server that hangs answers nothing: it is waited for so long, body included.
  const PATIENCE = 5000;
  const request = (path, options = {}) => fetch(path, { signal: AbortSignal.timeout(PATIENCE), ...options });
  const get = (path) => request(path, { headers: { Accept: "application/json" }, cache: "no-store" });

  // Whether the server answers, and what is told where it does not.
  let lostSince = null;
  function link(ok, why, since) {
    const notice = byId("link");
    document.body.classList.toggle("stale", !ok);
    if (ok) { lostSince = null; notice.hidden = true; return; }
    lostSince ??= since || new Date();
    const text = why || `The connection to the server is lost. What is shown is as of ${lostSince.toLocaleTimeString("en-GB")}; it is tried again by itself.`;
    if (notice.textContent !== text) notice.textContent = text;
    notice.hidden = false;
  }
  const loggedOut = () => link(false, "Your login is over. Open this page again to log in.");

  // Puts what is new in the place of what is old, element by element, so that focus, scrolling and open details stay.
  function renew(old, fresh) {
    if (fresh.dataset.beats !== undefined) old.dataset.beats = fresh.dataset.beats;
    if (fresh.dataset.scanned !== undefined) old.dataset.scanned = fresh.dataset.scanned;
    const known = new Map();
    for (const child of old.children) if (child.dataset.key) known.set(child.dataset.key, child);
    const gone = new Set(known.keys());
    const focused = document.activeElement?.closest("[data-key]")?.dataset.key;
    const parts = [];
    for (const child of [...fresh.childNodes]) {
      const key = child.dataset?.key;
      const before = key && known.get(key);
      gone.delete(key);
      if (!before) { if (key && known.size) child.classList.add("new"); parts.push(child); continue; }
      before.classList.remove("gone");
      if (before.tagName === "TR") renewCells(before, child);
      parts.push(before);
    }
    // Where most are new, another page or order is shown, and nothing began.
    const began = parts.filter((part) => part.classList?.contains("new"));
    if (began.length * 2 > parts.length) began.forEach((part) => part.classList.remove("new"));
    const leaving = [...gone].map((key) => known.get(key));
    old.replaceChildren(...parts);
    if (focused && !document.activeElement?.closest("[data-key]")) old.querySelector(`[data-key="${CSS.escape(focused)}"] button, [data-key="${CSS.escape(focused)}"] a`)?.focus();
    return leaving;
  }

  function renewCells(before, after) {
    const olds = [...before.cells], news = [...after.cells];
    if (olds.length !== news.length) { before.replaceChildren(...news); return; }
    olds.forEach((cell, n) => {
      // An open detail, or a button under a finger, is not taken away.
      if (!cell.isEqualNode(news[n]) && !cell.querySelector("details[open], :focus")) cell.replaceWith(news[n]);
    });
  }

  // Rows of sessions that are not there any more: they stay for a while and say why.
  const farewells = new Map(), TOLD = 5;
  async function farewell(rows, body) {
    for (const [key, [row, until]] of farewells) {
      if (Date.now() > until || body.querySelector(`[data-key="${CSS.escape(key)}"]`)) farewells.delete(key);
      else body.append(row);
    }
    const left = new Map(rows.filter((row) => !row.classList.contains("gone")).slice(0, TOLD).map((row) => [row.dataset.key, row]));
    if (!left.size) return;
    // One question for all, to the record: who is not closed there is on another page of the list.
    const answer = await get(`/v1/sessions?ids=${[...left.keys()].join()}`).catch(() => null);
    if (!answer?.ok) return;
    for (const session of (await answer.json()).items) {
      const row = left.get(session.session_id);
      if (session.state !== "closed" || body.querySelector(`[data-key="${CSS.escape(session.session_id)}"]`)) continue;
      row.className = "gone";
      const tag = document.createElement("span");
      tag.className = "tag bad";
      tag.textContent = session.reason;
      row.querySelector("td.state")?.replaceChildren(tag);
      row.querySelector("button")?.remove();
      body.querySelector("td.empty")?.parentElement.remove();
      farewells.set(session.session_id, [row, Date.now() + 20000]);
      body.append(row);
      say(`${row.cells[0].textContent} ended: ${session.reason}`);
    }
  }

  const say = (text) => { byId("said").textContent = text; };

  async function refresh() {
    // Where the page was read to already, so that nobody reads that again.
    const here = new URL(location.href), scanned = document.querySelector("[data-scanned]")?.dataset.scanned;
    if (scanned) here.searchParams.set("since", scanned);
    const answer = await request(here, { headers: { Accept: "text/html" }, redirect: "manual" });
    if (answer.type === "opaqueredirect") return loggedOut();
    if (!answer.ok) throw new Error(answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    link(true);
    for (const old of document.querySelectorAll("[data-live]")) {
      const fresh = page.getElementById(old.id);
      if (!fresh) continue;
      if (old.id === "state" && fresh.dataset.refresh === undefined) delete old.dataset.refresh;
      if (!old.querySelector("[data-key]") && !fresh.querySelector("[data-key]") && old.innerHTML === fresh.innerHTML && old.dataset.beats === fresh.dataset.beats && old.dataset.scanned === fresh.dataset.scanned) continue;
      const leaving = renew(old, fresh);
      if (old.closest("#connections")) await farewell(leaving, old);
    }
    document.dispatchEvent(new Event("renewed"));
  }

  function follow() {
    const box = byId("follow");
    const wanted = () => (box ? box.checked : byId("state")?.dataset.refresh !== undefined);
    if (!box && !byId("state")) return;
    let under_way = false;
    const look = async () => {
      if (under_way || !wanted() || document.hidden || byId("ask").open) return;
      under_way = true;
      try { await refresh(); } catch { link(false); } finally { under_way = false; }
    };
    setInterval(look, EVERY);
    document.addEventListener("acted", look);
    box?.addEventListener("change", () => say(box.checked ? "following live" : "not following"));
  }

  // Actions. The cookie is sent by this host's own pages alone, and the server looks at where a request comes from.
  const TERMS = [["ttl", "For how long (empty: until it is lifted)", "1h"], ["reason", "Reason, for the record", ""]];
  // What is done to a node names it: behind a balancer another may answer, and refuses.
  const drainOf = (node) => `/v1/node/drain?node=${encodeURIComponent(node)}`;
  const banOf = (device) => `/v1/devices/${encodeURIComponent(device)}/ban`;
  const ACTS = {
    kick: (of) => ({
      title: `Kick ${of.device}?`, yes: "Kick",
      text: "Its session ends now. The device may come back at once; a ban keeps it away.",
      method: "DELETE", path: `/v1/sessions/${of.session}`, done: `${of.device} was kicked`,
    }),
    ban: (of) => ({
      title: `Ban ${of.device}?`, yes: "Ban", fields: TERMS,
      text: "Its session ends now, and it is refused until the ban is over or lifted.",
      method: "PUT", path: banOf(of.device), done: `${of.device} is banned`,
    }),
    "ban-address": (of) => ({
      title: `Ban ${of.address}?`, yes: "Ban", fields: TERMS, body: { remote_addr: of.address },
      text: "Every device from this address is refused. Behind a proxy or a shared address these may be many.",
      method: "POST", path: "/v1/bans", done: `${of.address} is banned`,
      count: `/debug/connections?limit=1&remote_addr=${encodeURIComponent(of.address)}`,
    }),
    "ban-a-device": () => ({
      title: "Ban a device", yes: "Ban", fields: [["device_id", "Device", "pump-1"], ...TERMS],
      text: "Its session, if it has one, ends now, and it is refused until the ban is over or lifted.",
      method: "PUT", path: (body) => { const device = body.device_id || ""; delete body.device_id; return banOf(device); }, needs: "device_id",
      done: "the device is banned",
    }),
    "ban-a-network": () => ({
      title: "Ban an address or a network", yes: "Ban", fields: [["remote_addr", "Address or network", "192.0.2.0/24"], ...TERMS],
      text: "Every device from there is refused, and the sessions from there end now. Behind a proxy or a shared address these may be many.",
      method: "POST", path: "/v1/bans", needs: "remote_addr", done: "the network is banned",
    }),
    lift: (of) => ({
      title: `Lift the ban of ${of.target}?`, yes: "Lift",
      text: "Whoever it was about may come back at once.",
      method: "DELETE", path: `/v1/bans/${of.ban}`, done: `the ban of ${of.target} is lifted`,
    }),
    drain: (of) => ({
      title: `Drain ${of.node}?`, yes: "Drain", body: {}, fields: [["spread", "Spread over (empty: as this node is set)", "30s"]],
      text: "It refuses newcomers from now on, and ends its sessions one by one, so that their devices go to other nodes.",
      method: "POST", path: drainOf(of.node), done: `${of.node} is draining`,
    }),
    undrain: (of) => ({
      title: `Take ${of.node} back?`, yes: "Take back",
      text: "It admits devices again, and ends no more sessions. Those that were sent away went elsewhere.",
      method: "DELETE", path: drainOf(of.node), done: `${of.node} admits again`,
    }),
  };

  function field([name, label, placeholder]) {
    const wrap = document.createElement("label");
    const input = document.createElement("input");
    input.name = name;
    input.placeholder = placeholder;
    input.spellcheck = false;
    wrap.append(label, input);
    return wrap;
  }

  // How many it will send away, told before it is done.
  async function count(act) {
    const text = byId("ask-text");
    const answer = await request(act.count, { headers: { Accept: "application/json" } }).catch(() => null);
    const total = answer?.ok ? (await answer.json().catch(() => ({}))).total : null;
    if (text.textContent !== act.text) return;
    text.textContent += Number.isInteger(total) ? ` Sessions from it that are live now: ${total}.` : " How many that are now could not be read.";
  }

  const failed = (error) => {
    if (error instanceof TypeError) return "The server does not answer.";
    return error.name === "TimeoutError" ? "The server did not answer in time; it may have done it all the same." : error.message;
  };

  let asked = 0;
  function ask(act, from) {
    const dialog = byId("ask"), yes = byId("ask-yes"), refused = byId("ask-refused"), fields = byId("ask-fields");
    byId("ask-title").textContent = act.title;
    byId("ask-text").textContent = act.text;
    yes.textContent = act.yes;
    if (act.count) count(act);
    refused.hidden = true;
    // Whatever an earlier question still waits for.
    yes.disabled = false;
    const question = ++asked;
    fields.replaceChildren(...(act.fields || []).map(field));
    const refuse = (why) => {
      if (question !== asked) return;
      refused.textContent = why;
      refused.hidden = false;
    };
    const carryOut = async () => {
      const body = act.body || act.fields ? { ...act.body } : null;
      for (const input of fields.querySelectorAll("input")) if (input.value.trim()) body[input.name] = input.value.trim();
      if (act.needs && !body[act.needs]) { fields.querySelector("input").focus(); return refuse("It has to be said who."); }
      const path = typeof act.path === "function" ? act.path(body) : act.path;
      yes.disabled = true;
      refused.hidden = true;
      try {
        const headers = body ? { "Content-Type": "application/json", Accept: "application/json" } : { Accept: "application/json" };
        const answer = await request(path, { method: act.method, headers, body: body && JSON.stringify(body) });
        if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).detail || `the server answered ${answer.status}`);
        if (question === asked) dialog.close();
        say(act.done);
        document.dispatchEvent(new CustomEvent("acted"));
      } catch (error) {
        refuse(failed(error));
      } finally {
        if (question === asked) yes.disabled = false;
      }
    };
    yes.onclick = carryOut;
    dialog.querySelector("form").onkeydown = (event) => {
      if (event.key === "Enter" && event.target.tagName === "INPUT") { event.preventDefault(); if (!yes.disabled) carryOut(); }
    };
    dialog.onclose = () => { if (from.isConnected) from.focus(); };
    dialog.showModal();
  }

  addEventListener("DOMContentLoaded", () => {
    theme();
    follow();
    document.addEventListener("click", (event) => {
      const button = event.target.closest("[data-act]");
      if (button) ask(ACTS[button.dataset.act](button.dataset), button);
    });
  });

  return { link, loggedOut, say, byId, get };
})();
