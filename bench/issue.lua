-- A certificate of the private CA with a name of its own in every request. Arguments: the CA's id, a word.
wrk.method = "POST"
wrk.headers["Authorization"] = "Bearer " .. os.getenv("BENCH_TOKEN")
wrk.headers["Content-Type"] = "application/json"

local path, word, number

function init(arguments)
  path = "/api/v1/authorities/" .. arguments[1] .. "/certificates"
  word = arguments[2]
  number = 0
end

function request()
  number = number + 1
  local body = string.format('{"names": ["h%d.%s.bench.example"]}', number, word)
  return wrk.format(nil, path, nil, body)
end
