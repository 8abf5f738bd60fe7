using System.Collections.Concurrent;
using System.Net.Sockets;
using System.Text.Json;
using Fleet.Linux.Processes;
using Fleet.Linux.Sockets;

namespace Fleet.HostAgent.Attach.Qemu;

/// <summary>One connection to a QMP socket. QEMU serves one client at a time on each.</summary>
public sealed class QmpClient : IDisposable
{
    // "info mtree" of a machine with many devices has some hundred KiB.
    private const int LongestLine = 8 << 20;
    private static readonly TimeSpan GreetingTimeout = TimeSpan.FromSeconds(3);
    private static readonly TimeSpan AnswerTimeout = TimeSpan.FromSeconds(10);

    private readonly Socket _socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    private readonly TimeProvider _time;
    private readonly QmpLineReader _reader;
    private readonly ConcurrentDictionary<long, TaskCompletionSource<QmpLine>> _waiting = new();
    private readonly SemaphoreSlim _sending = new(1, 1);
    private long _lastId;

    private QmpClient(TimeProvider time) => (_time, _reader) = (time, new QmpLineReader(_socket, LongestLine));

    /// <summary>The process that made the socket, as the kernel recorded it when that process listened (SO_PEERCRED).</summary>
    public UnixPeer Peer { get; private set; }

    /// <summary>Connects, and reads the greeting.</summary>
    /// <param name="name">What messages call the socket; null for its path.</param>
    /// <exception cref="QemuRejectedException"><c>qmp-unreachable</c>; <c>qmp-busy</c>: another client holds the socket, so that QEMU says nothing.</exception>
    public static async Task<QmpClient> ConnectAsync(string path, TimeProvider time, CancellationToken cancellationToken, string? name = null)
    {
        var client = new QmpClient(time);
        try
        {
            await client._socket.ConnectAsync(new UnixDomainSocketEndPoint(path), cancellationToken);
            client.Peer = UnixPeer.Of(client._socket);
            await client.GreetAsync(cancellationToken);
            return client;
        }
        catch (Exception exception) when (exception is SocketException or ArgumentException)
        {
            client.Dispose();
            // With its one client connected QEMU does not listen for others; once its queue is full the kernel says so.
            throw exception is SocketException { SocketErrorCode: SocketError.WouldBlock or SocketError.TryAgain }
                ? Busy()
                : new QemuRejectedException("qmp-unreachable", $"{name ?? path}: {exception.Message}");
        }
        catch
        {
            client.Dispose();
            throw;
        }
    }

    /// <summary>A pidfd of the process that made the socket.</summary>
    /// <exception cref="Linux.LinuxException">ESRCH: it has ended.</exception>
    public Pidfd OpenPeer() => UnixPeer.OpenPidfd(_socket);

    /// <summary>Reads answers and events until the connection ends; must run for <see cref="ExecuteAsync"/> to return.</summary>
    /// <param name="onEvent">Runs between two lines; must not wait for an answer.</param>
    public async Task RunAsync(Action<QmpLine> onEvent, CancellationToken cancellationToken)
    {
        try
        {
            while (await _reader.ReadAsync(cancellationToken) is { } line)
            {
                if (line.Event is not null)
                {
                    onEvent(line);
                }
                else if (line.Id is { ValueKind: JsonValueKind.Number } id && id.TryGetInt64(out var number) && _waiting.TryRemove(number, out var waiting))
                {
                    waiting.TrySetResult(line);
                }
            }
        }
        finally
        {
            foreach (var id in _waiting.Keys)
            {
                if (_waiting.TryRemove(id, out var waiting))
                {
                    waiting.TrySetException(new IOException("the QMP connection ended"));
                }
            }
        }
    }

    /// <exception cref="QemuRejectedException"><c>qmp-failed</c>: QEMU answered with an error, or not in time (its main loop hangs).</exception>
    /// <exception cref="IOException">The connection ended.</exception>
    public async Task<JsonElement> ExecuteAsync(string command, QmpArguments? arguments, CancellationToken cancellationToken)
    {
        var id = Interlocked.Increment(ref _lastId);
        var answer = new TaskCompletionSource<QmpLine>(TaskCreationOptions.RunContinuationsAsynchronously);
        _waiting[id] = answer;
        try
        {
            await SendAsync(new QmpCommand(command, arguments, id), cancellationToken);
            var line = await answer.Task.WaitAsync(AnswerTimeout, _time, cancellationToken);
            return line.Return ?? throw new QemuRejectedException("qmp-failed", $"{command}: {line.Error?.Class}: {line.Error?.Description}");
        }
        catch (TimeoutException)
        {
            throw new QemuRejectedException("qmp-failed", $"{command}: no answer in {AnswerTimeout.TotalSeconds} s; QEMU's main loop does not run");
        }
        finally
        {
            _waiting.TryRemove(id, out _);
        }
    }

    /// <summary>A command of the human monitor, for what QMP itself does not tell.</summary>
    public async Task<string> HumanAsync(string command, CancellationToken cancellationToken) =>
        (await ExecuteAsync("human-monitor-command", new QmpArguments(command), cancellationToken)).GetString() ?? string.Empty;

    public void Dispose()
    {
        _socket.Dispose();
        _sending.Dispose();
    }

    private async Task GreetAsync(CancellationToken cancellationToken)
    {
        using var timeout = new CancellationTokenSource(GreetingTimeout, _time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(timeout.Token, cancellationToken);
        try
        {
            if (await _reader.ReadAsync(either.Token) is not { Greeting: not null })
            {
                throw new QemuRejectedException("qmp-failed", "the socket's other end does not speak QMP");
            }
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            throw Busy();
        }
        catch (IOException exception)
        {
            throw new QemuRejectedException("qmp-failed", exception.Message);
        }
    }

    private async Task SendAsync(QmpCommand command, CancellationToken cancellationToken)
    {
        byte[] bytes = [.. JsonSerializer.SerializeToUtf8Bytes(command, QmpJson.Default.QmpCommand), (byte)'\n'];
        await _sending.WaitAsync(cancellationToken);
        try
        {
            for (var sent = 0; sent < bytes.Length;)
            {
                sent += await _socket.SendAsync(bytes.AsMemory(sent), cancellationToken);
            }
        }
        catch (SocketException exception)
        {
            throw new IOException("the QMP connection ended", exception);
        }
        finally
        {
            _sending.Release();
        }
    }

    private static QemuRejectedException Busy() =>
        new("qmp-busy", "another client holds the QMP socket; give the agent one of its own (a second -qmp)");
}
