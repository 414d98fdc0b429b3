// A device on Node's `ws`: says its welcome, holds until it is told to leave, says how it ended.
//
// Arguments: URL, token, file of the authority. A line on standard input tells it to leave. Pings are answered by the
// library by itself.
const fs = require("fs");
const WebSocket = require("ws");

const [url, token, authority] = process.argv.slice(1);
const say = (what) => console.log(JSON.stringify(what));

const socket = new WebSocket(url, {
  headers: { Authorization: `Bearer ${token}` },
  ca: fs.readFileSync(authority),
  servername: "localhost",
});
socket.once("message", (text) => say({ welcome: JSON.parse(text) }));
socket.on("close", (code) => {
  say({ closed: code });
  process.exit();
});
process.stdin.once("data", () => socket.close(1000));
