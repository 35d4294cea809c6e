-- A substring search with another term in every request: five digits inside the host's number.
wrk.headers["Authorization"] = "Bearer " .. os.getenv("BENCH_TOKEN")

function init(arguments)
  math.randomseed(os.time())
end

function request()
  local term = string.format("%05d", math.random(10000, 99999))
  return wrk.format("GET", "/api/v1/certificates?limit=20&search=" .. term)
end
