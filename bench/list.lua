-- A page of 20 certificates, newest first.
wrk.path = "/api/v1/certificates?limit=20"
wrk.headers["Authorization"] = "Bearer " .. os.getenv("BENCH_TOKEN")
