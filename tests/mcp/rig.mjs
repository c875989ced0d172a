// What the tests with official clients share: a simulated ComfyUI and a
// supervisor in a scratch directory, and where the packages lie.
//
// From the environment: BIN (the programs), NPM (a directory with node_modules).
import { spawn } from 'node:child_process';
import { mkdtempSync, openSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

export const BIN = resolve(process.env.BIN ?? 'build');
export const NPM = resolve(process.env.NPM ?? 'build/npm');
export const load = createRequire(join(NPM, 'package.json'));
export const PATIENCE_MS = 60000; // a bound for broken runs, not an expectation

export async function until(condition, what, patience = PATIENCE_MS) {
	const end = Date.now() + patience;

	for (;;) {
		const value = await condition();
		if (value)
			return value;
		if (Date.now() > end)
			throw new Error(`waited in vain for ${what}`);
		await sleep(10);
	}
}

const canConnect = (path) => new Promise((done) => {
	const s = createConnection(path, () => { s.destroy(); done(true); });
	s.on('error', () => done(false));
});

export function isRunning(pid) {
	try {
		process.kill(pid, 0);
		return true;
	} catch {
		return false;
	}
}

export class Rig {
	constructor() {
		this.dir = mkdtempSync(join(tmpdir(), 'cmx-mcp-'));
		this.socket = join(this.dir, 's');
		this.children = [];
		// What the official clients pass on, and nothing else.
		this.env = { HOME: this.dir, PATH: process.env.PATH };
	}

	start(program, args, stdout = 'ignore') {
		const child = spawn(join(BIN, program), args, {
			cwd: this.dir, env: this.env,
			stdio: ['ignore', stdout, openSync(join(this.dir, `${program}.log`), 'a')],
		});
		this.children.push(child);
		return child;
	}

	async open() {
		const sim = this.start('comfysim', ['--port', '0', '--quiet'], 'pipe');
		for await (const line of createInterface(sim.stdout)) {
			this.url = line.split(' ').at(-1);
			break;
		}
		this.start('comfymuxd', ['--socket', this.socket, '--state-dir', join(this.dir, 'state'),
			'--comfyui', this.url]);
		await until(() => canConnect(this.socket), 'the supervisor');
		return this;
	}

	get server() {
		return { command: join(BIN, 'comfymux'), args: ['mcp', '--socket', this.socket], env: this.env };
	}

	async upload(name, bytes) {
		const form = new FormData();
		form.append('image', new Blob([bytes]), name);
		form.append('overwrite', 'true');
		const reply = await fetch(`${this.url}/upload/image`, { method: 'POST', body: form });
		if (!reply.ok)
			throw new Error(await reply.text());
	}

	async fault(fault) {
		const reply = await fetch(`${this.url}/sim/fault`, { method: 'POST', body: JSON.stringify({ fault }) });
		if (!reply.ok)
			throw new Error(await reply.text());
	}

	async queue() {
		return (await fetch(`${this.url}/queue`)).json();
	}

	async close() {
		for (const child of this.children.reverse())
			child.kill('SIGTERM');
		await Promise.all(this.children.map((c) => c.exitCode === null && c.signalCode === null
			? new Promise((done) => c.once('exit', done)) : null));
		rmSync(this.dir, { recursive: true, force: true });
	}
}

export const sampler = (inputs = {}) => ({
	3: { class_type: 'SimSampler', inputs: { seed: 1, steps: 4, step_ms: 5, ...inputs } },
	9: { class_type: 'SaveImage', inputs: { images: ['3', 0], filename_prefix: 'mcp' } },
});

// A node whose output names a file of the test's choice.
export const naming = (filename, type) => ({
	3: { class_type: 'SimSampler', inputs: { seed: 1, steps: 1, step_ms: 0 } },
	5: {
		class_type: 'SimOutput',
		inputs: { images: ['3', 0], json: JSON.stringify({ filename, subfolder: '', type }) },
	},
});
