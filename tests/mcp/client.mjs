// The official clients: 1.32 as it is, 2.4 in each of its three ways to open a
// session. Whatever a client complains about (client.onerror) fails the test.
import assert from 'node:assert/strict';
import { once } from 'node:events';

import { load } from './rig.mjs';

const sdk1 = load('@modelcontextprotocol/sdk/client/index.js');
const stdio1 = load('@modelcontextprotocol/sdk/client/stdio.js');
const sdk2 = load('@modelcontextprotocol/client');
const stdio2 = load('@modelcontextprotocol/client/stdio');
export const MODERN = '2026-07-28';

// The 2.4 client turns a legacy -32002 into the modern code.
export const variants = [
	{ name: 'sdk 1.32', era: '2025-11-25', notFound: -32002, Client: sdk1.Client, Transport: stdio1.StdioClientTransport },
	{ name: 'client 2.4', era: '2025-11-25', notFound: -32602, Client: sdk2.Client, Transport: stdio2.StdioClientTransport },
	{
		name: 'client 2.4 auto', era: MODERN, notFound: -32602, Client: sdk2.Client, Transport: stdio2.StdioClientTransport,
		options: { versionNegotiation: { mode: 'auto' } },
	},
	{
		name: 'client 2.4 pinned', era: MODERN, notFound: -32602, Client: sdk2.Client, Transport: stdio2.StdioClientTransport,
		options: { versionNegotiation: { mode: { pin: MODERN } } },
	},
];

export class Session {
	constructor(variant, rig) {
		this.variant = variant;
		this.errors = [];
		this.client = new variant.Client({ name: 'test', version: '1' }, variant.options);
		// Of what it reads at once a client takes the answer first, and then
		// knows no token for the progress in front of it.
		this.client.onerror = (e) => /progress notification for an unknown token/.test(e.message) || this.errors.push(e);
		this.transport = new variant.Transport({ ...rig.server, stderr: 'pipe' });
	}

	async open() {
		await this.client.connect(this.transport);
		this.process = this.transport._process;
		return this;
	}

	call(name, args, options) {
		const params = { name, arguments: args ?? {} };
		return this.variant.Client === sdk1.Client
			? this.client.callTool(params, undefined, options)
			: this.client.callTool(params, options);
	}

	// Resolves to the milliseconds that it took.
	async close() {
		const exit = once(this.process, 'exit');
		const start = Date.now();
		await this.client.close();
		const [status, signal] = await exit;
		assert.deepEqual([status, signal], [0, null]);
		const took = Date.now() - start;
		assert.deepEqual(this.errors, []);
		return took;
	}
}
