// standardwebhooks SECRET: a consumer that takes signed calls only. Prints its port, then each call as a line of JSON.
const http = require('http');
const { Webhook } = require('standardwebhooks');
const webhook = new Webhook(process.argv[2]);
const print = (line) => process.stdout.write(JSON.stringify(line) + '\n');
const verify = (body, headers) => {
  try {
    return { payload: webhook.verify(body, headers) };
  } catch (e) {
    return { refused: e.message };
  }
};
const server = http.createServer((request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    const body = Buffer.concat(chunks).toString();
    const result = verify(body, request.headers);
    // What was changed on the way must not pass.
    const forged = verify(body.replace('"type"', '"typo"'), request.headers);
    const moved = verify(body, { ...request.headers, 'webhook-id': request.headers['webhook-id'] + 'x' });
    response.statusCode = result.payload ? 204 : 401;
    response.end();
    print({ ...result, id: request.headers['webhook-id'], forged: forged.refused || '', moved: moved.refused || '' });
  });
});
server.listen(0, '127.0.0.1', () => print({ port: server.address().port }));
