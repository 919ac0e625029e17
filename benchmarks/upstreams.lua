-- Each of wrk's threads loads a port of its own; PORTS in the environment lists them.
local ports = {}
for port in os.getenv("PORTS"):gmatch("%d+") do
  table.insert(ports, port)
end
local threads = 0

function setup(thread)
  threads = threads + 1
  thread.addr = wrk.lookup("127.0.0.1", ports[threads])[1]
end
