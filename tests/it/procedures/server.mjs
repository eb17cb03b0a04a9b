// A small application as the teams have it: well at /api/health, and ready at /api/health/ready while its tables answer.
import http from "node:http";
import pg from "pg";

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 1 });
// Whose sessions are ended connects again.
pool.on("error", () => {});

async function status(path) {
  if (path === "/api/health") return 200;
  if (path !== "/api/health/ready") return 404;
  return pool.query(process.env.READY).then(() => 200, () => 503);
}

const server = http.createServer(async (request, response) => {
  response.writeHead(await status(request.url)).end();
});
server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
