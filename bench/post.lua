-- Bodies of a file, one a line, posted in turn. Arguments: path, file. BENCH_HEADER holds one more header: "Name: value".
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local name, value = os.getenv("BENCH_HEADER"):match("^([^:]+): (.*)$")
wrk.headers[name] = value

local path, bodies, number = nil, {}, 0

function init(arguments)
  path = arguments[1]
  for line in io.lines(arguments[2]) do
    bodies[#bodies + 1] = line
  end
end

function request()
  number = number % #bodies + 1
  return wrk.format(nil, path, nil, bodies[number])
end
