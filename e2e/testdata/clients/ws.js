// ws URL: prints what happens on a websocket as lines of JSON. A line on standard input closes it from this side.
const WebSocket = require('ws');
const socket = new WebSocket(process.argv[2], { perMessageDeflate: true });
const print = (line) => process.stdout.write(JSON.stringify(line) + '\n');
socket.on('open', () => { print({ open: true }); socket.ping('are you there'); });
socket.on('pong', (data) => print({ pong: data.toString() }));
socket.on('unexpected-response', (request, response) => { print({ status: response.statusCode }); process.exit(0); });
socket.on('message', (data, binary) => print({ text: data.toString(), binary }));
socket.on('error', (e) => print({ error: e.message }));
socket.on('close', (code, reason) => { print({ closed: code, reason: reason.toString() }); process.exit(0); });
process.stdin.once('data', () => socket.close(1000, 'enough'));
