// eventsource URL TYPE...: prints each event as a line of JSON, for ever. EventSource connects again by itself and sends Last-Event-ID.
const { EventSource } = require('eventsource');
const [url, ...types] = process.argv.slice(2);
const source = new EventSource(url);
const print = (line) => process.stdout.write(JSON.stringify(line) + '\n');
source.onopen = () => print({ open: true });
source.onerror = (e) => print({ error: e.code || 0, text: e.message || '' });
for (const type of new Set(['message', ...types])) {
  source.addEventListener(type, (e) => print({ type: e.type, id: e.lastEventId, data: e.data }));
}
