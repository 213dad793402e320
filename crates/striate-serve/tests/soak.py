#!/usr/bin/env python3
"""Many bad requests among good ones, exchanges of bundles under load, and stops under load.

    soak.py PROGRAM BUNDLE OTHER_BUNDLE PICTURE [--bad 100000] [--exchanges 1000] [--stops 30]

The two bundles need other answers for the picture. Takes some minutes; ends with an error if a good
request has no answer or a wrong one, or if the server crashes. Needs nothing but Python.
"""

import argparse, atexit, base64, http.client, json, multiprocessing, os, random, secrets, shutil, signal, socket, subprocess, tempfile
import threading, time
from concurrent.futures import ProcessPoolExecutor

PATH = "/v1/models/net/predict"


class Server:
    def __init__(self, program, folder, queue=128):
        self.token = secrets.token_hex(32)
        token = os.path.join(folder, "token.txt")
        with open(token, "w") as file:
            file.write(self.token)
        bundle = "net=" + os.path.join(folder, "net.safetensors")
        command = [program, "serve", bundle, "--listen", "127.0.0.1:0", "--admin-token", token, "--queue", str(queue)]
        env = dict(os.environ, STRIATE_LOG="error")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
        atexit.register(self.process.kill)
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1])

    def memory(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def ask(port, body, kind="image/png", path=PATH, headers={}):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", path, body, {"Content-Type": kind, **headers})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def answer(port, picture):
    status, body = ask(port, picture)
    assert status == 200, (status, body)
    told = json.loads(body)
    return told["generation"], [(one["class"], one["probability"]) for one in told["predictions"][0]["top"]]


def same(one, other):
    return all(a[0] == b[0] and abs(a[1] - b[1]) < 1e-5 for a, b in zip(one, other))


def changed(chance, content):
    content = bytearray(content)
    for _ in range(chance.randint(1, 5)):
        at = chance.randrange(max(len(content), 1))
        match chance.randrange(4):
            case 0: del content[at:]
            case 1: content[at:at] = chance.randbytes(chance.randint(1, 9))
            case 2: content[at:at + chance.randint(1, 9)] = b""
            case _ if content: content[at] ^= 1 << chance.randrange(8)
    return bytes(content)


def raw(port, content, half=False):
    """Sends bytes; whatever comes back is fine, as long as something ends the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as stream:
        try:
            stream.sendall(content)
            if half:
                stream.shutdown(socket.SHUT_WR)
            stream.recv(65536)
        except OSError:
            pass


def bad(port, picture, count, seed):
    chance, text = random.Random(seed), json.dumps({"image": base64.b64encode(picture).decode()}).encode()
    statuses = {}
    expected = answer(port, picture)
    for number in range(count):
        kind = chance.randrange(8)
        body = changed(chance, text if kind % 2 else picture)
        if kind < 5:
            # Some are refused before their body is read: then the system may reset the connection under the answer.
            try:
                status, _ = ask(port, body, ["image/png", "application/json", "text/html", "multipart/form-data; boundary=x", "image/jpeg"][kind])
            except ConnectionError:
                status = "reset"
            statuses[status] = statuses.get(status, 0) + 1
        elif kind == 5:
            raw(port, f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(picture)}\r\n\r\n".encode() + picture[:-9], half=True)
        elif kind == 6:
            raw(port, f"POST {PATH} HTTP/1.1\r\nhost: x\r\nx: {'y' * chance.choice([9, 20000, 100000])}\r\n\r\n".encode(), half=True)
        else:
            raw(port, changed(chance, f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n123456789".encode()), half=True)
        if number % 4 == 0:
            assert same(answer(port, picture)[1], expected[1])
    return statuses


def slow(port, ends):
    """Holds connections that send a byte now and then."""
    streams = []
    while not ends.is_set():
        streams = streams[-19:] + [socket.create_connection(("127.0.0.1", port))]
        for stream in streams:
            try:
                stream.send(b"P")
            except OSError:
                pass
        ends.wait(0.5)


def load(port, picture, until):
    answers = []
    while time.time() < until:
        answers.append(answer(port, picture))
    return answers


def stopped(port, picture):
    """Asks until the server is gone: when each request was sent, and whether it had its answer."""
    seen = []
    while True:
        sent = time.time()
        try:
            answer(port, picture)
            seen.append((sent, True))
        except ConnectionRefusedError:
            return seen
        except (OSError, http.client.HTTPException, AssertionError):
            seen.append((sent, False))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ["program", "bundle", "other", "picture"]:
        parser.add_argument(name)
    for name, count in [("bad", 100_000), ("exchanges", 1000), ("stops", 30)]:
        parser.add_argument(f"--{name}", type=int, default=count)
    args = parser.parse_args()
    picture = open(args.picture, "rb").read()
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as pool:
        net = os.path.join(folder, "net.safetensors")
        shutil.copy(args.bundle, net)

        server = Server(args.program, folder)
        ends = threading.Event()
        threading.Thread(target=slow, args=(server.port, ends), daemon=True).start()
        # Threads and buffers are there from here on.
        for _ in pool.map(bad, [server.port] * 4, [picture] * 4, [500] * 4, range(4)): pass
        before, statuses = server.memory(), {}
        for part in pool.map(bad, [server.port] * 4, [picture] * 4, [args.bad // 4] * 4, range(4, 8)):
            statuses = {status: statuses.get(status, 0) + part.get(status, 0) for status in {*statuses, *part}}
        ends.set()
        assert not {status for status in statuses if status != "reset" and status >= 500}, statuses
        print(f"{args.bad} bad requests, {args.bad // 4} good ones: {statuses}; "
              f"memory {before:.1f} MiB before, {server.memory():.1f} MiB after", flush=True)

        expected, exchanged = [answer(server.port, picture)[1]], 0
        while exchanged < args.exchanges:
            clients = [pool.submit(load, server.port, picture, time.time() + 5) for _ in range(3)]
            while not all(client.done() for client in clients):
                if exchanged < args.exchanges:
                    shutil.copy([args.bundle, args.other][(exchanged + 1) % 2], net + ".new")
                    os.replace(net + ".new", net)
                    status, told = ask(server.port, b"", path="/admin/reload", headers={"Authorization": f"Bearer {server.token}"})
                    assert status == 200, told
                    exchanged += 1
                    if exchanged == 1:
                        expected.append(answer(server.port, picture)[1])
                        assert not same(*expected), "the two bundles answer alike"
                        first = server.memory()
                else:
                    time.sleep(0.1)
            answers = [one for client in clients for one in client.result()]
            assert all(same(told, expected[generation % 2]) for generation, told in answers)
        print(f"{exchanged} exchanges, the last {len(answers)} answers each of one bundle; "
              f"memory {first:.1f} MiB after the first, {server.memory():.1f} MiB after the last", flush=True)
        assert server.stop() == 0

        count = lost = 0
        for _ in range(args.stops):
            server = Server(args.program, folder)
            clients = [pool.submit(stopped, server.port, picture) for _ in range(4)]
            time.sleep(0.5 + random.random() / 5)
            at = time.time()
            assert server.stop() == 0
            # For 0.2 seconds it takes connections; those that come later may find nobody.
            seen = [one for client in clients for one in client.result() if one[0] < at + 0.1]
            count, lost = count + len(seen), lost + sum(not answered for _, answered in seen)
        print(f"{args.stops} stops by SIGTERM under load: of {count} requests before, {lost} lost", flush=True)
        assert lost == 0


if __name__ == "__main__":
    main()
