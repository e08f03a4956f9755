// cloudevents: a consumer of CloudEvents, binary or batched. Prints its port, then the events of each call as a line of JSON.
const http = require('http');
const { HTTP } = require('cloudevents');
const print = (line) => process.stdout.write(JSON.stringify(line) + '\n');
const server = http.createServer((request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    const body = Buffer.concat(chunks).toString();
    try {
      const read = HTTP.toEvent({ headers: request.headers, body });
      const events = (Array.isArray(read) ? read : [read]).map((e) => {
        e.validate();
        return e.toJSON();
      });
      response.statusCode = 204;
      print({ batch: Array.isArray(read), events });
    } catch (e) {
      response.statusCode = 400;
      print({ error: String(e), headers: request.headers, body });
    }
    response.end();
  });
});
server.listen(0, '127.0.0.1', () => print({ port: server.address().port }));
