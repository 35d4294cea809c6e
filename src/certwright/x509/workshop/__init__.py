"""The workshop: reads what people upload, repairs what is safely repaired, says what is wrong with the rest, converts.

Import the modules: `upload` (judge an upload), `containers` (what is in a file), `decode` (show it), `convert`,
`chains`, `lint`, `words`. No clock, no network, no files: what they need comes as arguments.
"""
