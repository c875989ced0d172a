// The official clients against `comfymux mcp`, each of them in every way.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { MODERN, Session, variants } from './client.mjs';
import { Rig, isRunning, naming, sampler, until } from './rig.mjs';

let rig;
before(async () => { rig = await new Rig().open(); });
after(() => rig.close());

const failsWith = (code) => (e) => {
	assert.equal(e.code, code, String(e));
	return true;
};

for (const variant of variants) {
	const withSession = (name, body) => test(name, { timeout: 120000 }, async () => {
		const s = await new Session(variant, rig).open();
		try {
			await body(s, s.client);
			await s.close();
		} finally {
			s.process.kill('SIGKILL');
		}
	});

	describe(variant.name, () => {
		withSession('opens and closes', async (s, client) => {
			assert.equal(client.getServerVersion()?.name, 'comfymux');
			assert.deepEqual(Object.keys(client.getServerCapabilities()).sort(), ['resources', 'tools']);
			assert.match(client.getInstructions(), /get_last_output/);
			if (variant.era !== MODERN)
				await client.ping();
		});

		withSession('lists tools', async (s, client) => {
			const { tools } = await client.listTools();
			const names = tools.map((t) => t.name);
			for (const name of ['execute_workflow_sync', 'submit_workflow', 'wait_for_execution', 'get_queue',
				'get_last_output', 'download_by_filename'])
				assert.ok(names.includes(name), name);
			for (const t of tools) {
				assert.ok(t.name.length < 40 && t.description && t.title);
				assert.equal(t.inputSchema.type, 'object');
				for (const hint of ['readOnlyHint', 'destructiveHint', 'idempotentHint', 'openWorldHint'])
					assert.equal(typeof t.annotations[hint], 'boolean', `${t.name} ${hint}`);
			}
		});

		withSession('runs a workflow; the client checks the output schema', async (s, client) => {
			await client.listTools(); // so that it knows the schemas
			let seed = 1;
			// Several notifications, whenever the machine isn't busy.
			await until(async () => {
				const progress = [];
				const workflow = sampler({ steps: 20, step_ms: 40, seed: seed++ });
				const result = await s.call('execute_workflow_sync', { workflow },
					{ onprogress: (p) => progress.push(p) });
				assert.equal(result.isError, false);
				assert.equal(result.structuredContent.status, 'completed');
				assert.deepEqual(JSON.parse(result.content[0].text), result.structuredContent);
				for (let i = 1; i < progress.length; i++)
					assert.ok(progress[i].progress > progress[i - 1].progress);
				assert.ok(progress.every((p) => p.total === 1 && p.progress < 1 && p.message));
				return progress.length >= 2;
			}, 'two progress notifications');
		});

		withSession('calls every tool that needs nothing', async (s, client) => {
			const { tools } = await client.listTools();
			const plain = tools.filter((t) => t.annotations.readOnlyHint && !t.inputSchema.required?.length);
			assert.ok(plain.length >= 4, plain.map((t) => t.name).join());
			await Promise.all(plain.map((t) => s.call(t.name)));
		});

		withSession('tells of failures', async (s, client) => {
			await client.listTools();
			let result = await s.call('execute_workflow_sync', { workflow: { 1: { class_type: 'NoSuchNode', inputs: {} } } });
			assert.equal(result.isError, true);
			assert.match(result.content[0].text, /NoSuchNode/);
			result = await s.call('execute_workflow_sync', {
				workflow: { 1: { class_type: 'SimError', inputs: { message: 'boom' } },
					2: { class_type: 'SimText', inputs: { text: 'x', after: ['1', 0] } } },
			});
			assert.match(result.content[0].text, /boom/);
			result = await s.call('get_history', { limit: 'many' });
			assert.equal(result.isError, true);
			assert.match(result.content[0].text, /limit/);
			await assert.rejects(s.call('no_such_tool'), failsWith(-32602));
			await assert.rejects(client.readResource({ uri: 'comfy://output/none.png' }),
				failsWith(variant.notFound));
		});

		withSession('reads resources', async (s, client) => {
			await s.call('execute_workflow_sync', { workflow: sampler() });
			const { resources } = await client.listResources();
			const read = await client.readResource({ uri: resources[0].uri });
			assert.equal(read.contents[0].mimeType, 'image/png');
			assert.equal(Buffer.from(read.contents[0].blob, 'base64').subarray(1, 4).toString(), 'PNG');
			const { resourceTemplates } = await client.listResourceTemplates();
			assert.equal(resourceTemplates.length, 1);
		});

		withSession('answers with nine megabytes', async (s, client) => {
			await rig.upload('big.bin', Buffer.alloc(7 << 20, 0x5a));
			const { structuredContent } = await s.call('execute_workflow_sync', { workflow: naming('big.bin', 'input') });
			const uri = `comfy://input/big.bin?prompt_id=${structuredContent.prompt_id}`;
			const read = await client.readResource({ uri });
			assert.ok(read.contents[0].blob.length > 9 << 20);
		});

		withSession('calls many at once', async (s) => {
			const results = await Promise.all(Array.from({ length: 100 }, () => s.call('get_queue')));
			assert.ok(results.every((r) => r.isError === false));
		});

		withSession('aborts', async (s) => {
			const abort = new AbortController();
			const call = s.call('execute_workflow_sync', { workflow: sampler({ steps: 400, step_ms: 50 }) },
				{ signal: abort.signal, onprogress: () => abort.abort('enough') });
			await assert.rejects(call);
			await until(async () => (await rig.queue()).queue_running.length === 0, 'the interrupt');
		});

		withSession('times out, and the prompt runs on', async (s) => {
			await rig.fault('pause');
			// Again if it was given up before anything was submitted.
			const prompt = await until(async () => {
				await assert.rejects(s.call('execute_workflow_sync', { workflow: sampler() }, { timeout: 500 }));
				const { running, pending } = (await s.call('get_queue')).structuredContent;
				return [...running, ...pending][0];
			}, 'a prompt that runs on');
			await rig.fault('resume');
			const done = await s.call('wait_for_execution', { prompt_id: prompt.prompt_id });
			assert.equal(done.structuredContent.status, 'completed');
		});

		// Whenever the machine isn't busy, well under the two seconds after which the clients send SIGTERM.
		test('ends by itself', async () => {
			await until(async () => {
				const s = await new Session(variant, rig).open();
				await s.call('get_queue');
				return await s.close() < 1900;
			}, 'a quick end');
		});

		test('leaves no process behind', async () => {
			for (let i = 0; i < 5; i++) {
				const s = await new Session(variant, rig).open();
				const { pid } = s.process;
				await s.call('get_queue');
				await s.close();
				await until(() => !isRunning(pid), 'its end');
			}
		});
	});
}
