// A request as a command for a POSIX shell. The key is never in it: the shell has it in $ROOMCAST_KEY.

const SAFE = /^[\w@%+=:,./-]+$/;

/** A text as one word of a shell, whatever is in it. */
export const quote = (text) => (SAFE.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);

/** `headers` are pairs; `keyed` says that the request needs the key. */
export function curl({ method, url, headers = [], body }, keyed) {
  const parts = [`curl ${method === "GET" || (method === "POST" && body !== undefined) ? "" : `-X ${method} `}${quote(url)}`];
  // In double quotes, so that the shell puts the key there.
  if (keyed) parts.push('-H "Authorization: Bearer $ROOMCAST_KEY"');
  for (const [name, value] of headers) parts.push(`-H ${quote(`${name}: ${value}`)}`);
  // Not -d, to which a body that begins with "@" names a file.
  if (body !== undefined) parts.push(`--data-raw ${quote(body)}`);
  return parts.join(" \\\n  ");
}
