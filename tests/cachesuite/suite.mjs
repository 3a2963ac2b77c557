// Runs the public suite's client against a proxy: what it asks of /test goes through the proxy, with a token; what it
// tells the suite's own server (/config, /state) goes straight there. Prints one JSON line for each test.
import { pathToFileURL } from 'node:url'

const [folder, origin, proxy, token, categories, only] = process.argv.slice(2)
const from = path => import(pathToFileURL(`${folder}/${path}`))
const { runTests, getResults } = await from('client/runner.mjs')
const { determineTestResult } = await from('lib/display.mjs')
const { default: suites } = await from('tests/index.mjs')
const { default: surrogate } = await from('tests/surrogate-control.mjs')
const { default: fetch } = await import(pathToFileURL(`${folder}/../node-fetch/lib/index.mjs`))
suites.push(surrogate)

const through = (url, init = {}) => {
  const { pathname, search } = new URL(url)
  if (!pathname.startsWith('/test/')) return fetch(`${origin}${pathname}${search}`, init)
  const headers = (init.headers || []).filter(([name]) => name.toLowerCase() !== 'authorization')
  return fetch(`${proxy}${pathname}${search}`, { ...init, headers: [...headers, ['Authorization', `Bearer ${token}`]] })
}

const words = { '✅': 'pass', '⛔️': 'fail', '⚠️': 'fail', Y: 'yes', N: 'no', '🔹': 'setup', '⁉️': 'harness', '⚪️': 'dependency', '↻': 'retry', '-': 'untested' }
const ids = only ? only.split(',') : null
const wanted = name => categories.startsWith('-') ? !categories.slice(1).split(',').includes(name) : categories.split(',').includes(name)
const chosen = suites.filter(s => wanted(s.id)).map(s => ({ ...s, tests: s.tests.filter(t => !ids || ids.includes(t.id)) }))
// The credential that reaches the provider is the project's key: the proxy would be no proxy if it were the client's.
for (const suite of chosen) {
  if (suite.id !== 'auth') continue
  for (const test of suite.tests) for (const request of test.requests) delete request.expected_request_headers
}
await runTests(chosen, through, false, 'http://suite.invalid')
const results = getResults()
for (const suite of chosen) {
  for (const test of suite.tests) {
    if (test.browser_only || !(test.id in results)) continue
    const said = results[test.id] === true ? '' : results[test.id][1]
    const reuse = test.requests.some(request => request.expected_type === 'not_cached')
    console.log(JSON.stringify({
      suite: suite.id,
      id: test.id,
      kind: test.kind || 'required',
      forbids: reuse && (test.kind || 'required') === 'required',
      result: ids ? (said ? 'fail' : 'pass') : words[determineTestResult(suites, test.id, results)[2]],
      said
    }))
  }
}
