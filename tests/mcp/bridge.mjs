// Streamable HTTP in front of a stdio server, for the conformance suite, which
// speaks HTTP only. A test tool: it does as much of the transport as the suite
// needs to reach the server behind it, and no more.
//
// Legacy: one child for each Mcp-Session-Id. Modern: one child for all. Ids and
// progress tokens are replaced by ones of our own on the way in and put back on
// the way out, since clients of one child know nothing of each other.
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';
import { createInterface } from 'node:readline';

const META = 'io.modelcontextprotocol/';

class Child {
	constructor(server) {
		this.pending = new Map(); // our id -> { id, token, send }
		this.last = 0;
		this.process = spawn(server.command, server.args, {
			env: server.env, stdio: ['pipe', 'pipe', 'inherit'],
		});
		createInterface(this.process.stdout).on('line', (line) => this.take(JSON.parse(line)));
	}

	write(message) {
		this.process.stdin.write(JSON.stringify(message) + '\n');
	}

	// send(message, isLast) is called with what belongs to the request.
	request(message, send) {
		const id = ++this.last;
		const token = message.params?._meta?.progressToken;
		this.pending.set(id, { id: message.id, token, send });
		const copy = structuredClone(message);
		copy.id = id;
		if (token !== undefined)
			copy.params._meta.progressToken = id;
		this.write(copy);
		return id;
	}

	notify(message) {
		const copy = structuredClone(message);
		if (message.method === 'notifications/cancelled')
			copy.params.requestId = this.forget((p) => p.id === message.params?.requestId);
		this.write(copy);
	}

	forget(which) {
		for (const [id, p] of this.pending)
			if (which(p, id)) {
				this.pending.delete(id);
				return id;
			}
		return -1;
	}

	take(message) {
		const params = message.params ?? {};
		const listen = params._meta?.[`${META}subscriptionId`] ?? message.result?._meta?.[`${META}subscriptionId`];
		const id = message.id ?? params.progressToken ?? listen;
		const p = this.pending.get(id);
		if (!p)
			return;
		if ('progressToken' in params)
			params.progressToken = p.token;
		for (const meta of [params._meta, message.result?._meta])
			if (meta && `${META}subscriptionId` in meta)
				meta[`${META}subscriptionId`] = p.id;
		if ('id' in message) {
			message.id = p.id;
			this.pending.delete(id);
		}
		p.send(message, 'id' in message);
	}

	// Resolves when it has left.
	end() {
		this.process.stdin.end();
		return this.process.exitCode === null && this.process.signalCode === null
			? once(this.process, 'exit') : null;
	}
}

// The status that goes with a modern error.
function statusOf(error) {
	if (error?.code === -32601)
		return 404;
	if ([-32020, -32021, -32022].includes(error?.code))
		return 400;
	return error?.code === -32602 && error.message.includes(META) ? 400 : 200;
}

function answer(response, modern, child, message) {
	let id = null;
	let stream = false;
	response.on('close', () => {
		// A closed connection cancels a modern request, and no other.
		if (modern && child.pending.delete(id))
			child.write({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: id } });
	});
	id = child.request(message, (reply, last) => {
		if (last && !stream) {
			response.writeHead(modern ? statusOf(reply.error) : 200, { 'content-type': 'application/json' });
			response.end(JSON.stringify(reply));
			return;
		}
		if (!stream)
			response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
		stream = true;
		response.write(`event: message\ndata: ${JSON.stringify(reply)}\n\n`);
		if (last)
			response.end();
	});
}

const refuse = (response, status, code, message) => {
	response.writeHead(status, { 'content-type': 'application/json' });
	response.end(JSON.stringify({ jsonrpc: '2.0', error: { code, message } }));
};

const local = (name) => !name || /^(https?:\/\/)?(127\.0\.0\.1|localhost|\[::1\])(:\d+)?$/.test(name);

// Resolves to { url, close }.
export async function openBridge(server) {
	const sessions = new Map();
	let shared = null;

	const post = async (request, response) => {
		let message;
		try {
			message = JSON.parse(await text(request));
		} catch {
			return refuse(response, 400, -32700, 'not JSON');
		}
		const modern = message.params?._meta?.[`${META}protocolVersion`] !== undefined ||
			request.headers['mcp-protocol-version'] === '2026-07-28';
		let child = sessions.get(request.headers['mcp-session-id']);
		if (modern) {
			child = shared ??= new Child(server);
		} else if (message.method === 'initialize') {
			const id = randomUUID();
			child = new Child(server);
			sessions.set(id, child);
			response.setHeader('mcp-session-id', id);
		} else if (!child) {
			return request.headers['mcp-session-id']
				? refuse(response, 404, -32600, 'no such session')
				: refuse(response, 400, -32600, 'no session');
		}
		if (message.id === undefined || message.method === undefined) {
			if (message.method !== undefined)
				child.notify(message);
			response.writeHead(202).end();
			return undefined;
		}
		return answer(response, modern, child, message);
	};

	const http = createServer((request, response) => {
		if (!local(request.headers.origin) || !local(request.headers.host))
			return refuse(response, 403, -32600, 'a foreign origin');
		if (request.method === 'POST')
			return void post(request, response);
		const id = request.headers['mcp-session-id'];
		if (request.method === 'DELETE' && sessions.has(id)) {
			sessions.get(id).end();
			sessions.delete(id);
			return response.writeHead(204).end();
		}
		return response.writeHead(405).end();
	});
	await new Promise((done) => http.listen(0, '127.0.0.1', done));
	return {
		url: `http://127.0.0.1:${http.address().port}/mcp`,
		close() {
			http.close();
			http.closeAllConnections();
			return Promise.all([shared?.end(), ...[...sessions.values()].map((c) => c.end())]);
		},
	};
}
