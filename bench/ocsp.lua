-- Questions about certificates, in turn. Arguments: path, "GET" or "POST", a file with a question in each line: for GET
-- in base 64 as it stands in the path, for POST in hexadecimal.
local path, method, questions, number = nil, nil, {}, 0

function init(arguments)
  path, method = arguments[1], arguments[2]
  for line in io.lines(arguments[3]) do
    if method == "GET" then
      questions[#questions + 1] = wrk.format("GET", path .. "/" .. line)
    else
      local question = line:gsub("..", function(octet) return string.char(tonumber(octet, 16)) end)
      questions[#questions + 1] = wrk.format("POST", path, { ["Content-Type"] = "application/ocsp-request" }, question)
    end
  end
end

function request()
  number = number % #questions + 1
  return questions[number]
end
