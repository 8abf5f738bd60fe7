using System.Net.Sockets;
using Fleet.Contracts.Handoff;
using Fleet.Linux;
using Fleet.TinyVmm.Memory;
using Fleet.TinyVmm.Running;
using Fleet.TinyVmm.Vcpu;

namespace Fleet.TinyVmm.Migration;

/// <summary>Waits for one stream with the guest's RAM. A stream that fails leaves nothing behind, and another may come.</summary>
internal sealed class IncomingServer : IAsyncDisposable
{
    private const int MaximumPeers = 8;

    private readonly MigrationEndpoint _endpoint;
    private readonly Socket _listener;
    private readonly StreamIdentity _identity;
    private readonly GuestMemory _memory;
    private readonly IVirtualCpu _vcpu;
    private readonly RunControl _run;
    private readonly StreamLimits _limits;
    private readonly TimeProvider _time;
    private readonly Action<string> _log;
    private readonly BlockingAccess _access;
    private readonly SemaphoreSlim _loading = new(1);
    private readonly CancellationTokenSource _stop = new();
    private readonly Task _accepting;

    /// <exception cref="SocketException">The endpoint is in use, or cannot be had.</exception>
    public IncomingServer(
        MigrationEndpoint endpoint, StreamIdentity identity, GuestMemory memory, IVirtualCpu vcpu, RunControl run, StreamLimits limits, TimeProvider time, Action<string> log)
    {
        (_endpoint, _identity, _memory, _vcpu, _run) = (endpoint, identity, memory, vcpu, run);
        (_limits, _time, _log, _access) = (limits, time, log, new BlockingAccess(limits.Idle, time));
        _listener = endpoint.Listen();
        Address = MigrationEndpoint.Describe(_listener);
        _accepting = AcceptAsync();
    }

    /// <summary>Where it listens.</summary>
    public string Address { get; }

    /// <summary>Ends with the command that was under way in the source, if there was one, once the guest has run and finished it.</summary>
    public Task Carried { get; private set; } = Task.CompletedTask;

    public bool IsBlocked => _access.IsBlocked;

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        _listener.Dispose();
        await _accepting;
        _endpoint.Remove();
        _loading.Dispose();
        _stop.Dispose();
    }

    private async Task AcceptAsync()
    {
        var peers = new List<Task>();
        try
        {
            while (true)
            {
                peers.RemoveAll(peer => peer.IsCompleted);
                if (peers.Count >= MaximumPeers)
                {
                    await Task.WhenAny(peers);
                    continue;
                }

                peers.Add(ServeAsync(await _listener.AcceptAsync(_stop.Token)));
            }
        }
        catch (Exception exception) when (exception is OperationCanceledException or SocketException or ObjectDisposedException)
        {
            await Task.WhenAll(peers);
        }
    }

    private async Task ServeAsync(Socket peer)
    {
        await using var connection = new StreamConnection(peer, _limits.Idle, _time);
        using var total = new CancellationTokenSource(_limits.Total, _time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(total.Token, _stop.Token);
        try
        {
            await ReceiveAsync(connection, either.Token);
        }
        catch (StreamException exception)
        {
            await RefuseAsync(connection, exception);
        }
        catch (LinuxException exception)
        {
            await RefuseAsync(connection, new StreamException(StreamException.Memory, exception.Message));
        }
        catch (OperationCanceledException)
        {
            await RefuseAsync(connection, new StreamException(StreamException.TimedOut, $"the stream took longer than {_limits.Total}, or the target ends"));
        }
    }

    private async Task ReceiveAsync(StreamConnection connection, CancellationToken cancellationToken)
    {
        var magic = new byte[StreamConnection.Magic.Length];
        await connection.ReadAsync(magic, cancellationToken);
        if (!magic.AsSpan().SequenceEqual(StreamConnection.Magic))
        {
            throw new StreamException(StreamException.Malformed, "this is no stream");
        }

        _identity.Check(await connection.ReadMessageAsync(StreamJson.Default.StreamHeader, cancellationToken));
        if (!await _loading.WaitAsync(0, cancellationToken))
        {
            throw new StreamException(StreamException.Busy, "another stream is under way");
        }

        try
        {
            await LoadAsync(connection, cancellationToken);
        }
        finally
        {
            _loading.Release();
        }

        // If this is lost the source takes the stream for failed, and attests nothing: the guest runs there or nowhere.
        await connection.AnswerAsync(new StreamAnswer(true, StreamIdentity.Instance), cancellationToken);
    }

    private async Task LoadAsync(StreamConnection connection, CancellationToken cancellationToken)
    {
        if (_run.Present.State != VmmStates.Incoming)
        {
            throw new StreamException(StreamException.AlreadyLoaded, "this VMM has its RAM already");
        }

        if (_access.IsBlocked)
        {
            // It would still write what an earlier stream sent, after all of that was discarded.
            throw new StreamException(StreamException.Busy, "an earlier stream's access to a trapped page is still blocked");
        }

        var loaded = false;
        try
        {
            _memory.DiscardAll();
            await connection.AnswerAsync(new StreamAnswer(true, StreamIdentity.Instance), cancellationToken);
            var guest = await new IncomingStream(connection, _memory, _access).LoadAsync(cancellationToken);
            if (guest.Command is { } command)
            {
                Carried = _vcpu.Load(command);
            }

            _run.EndLoad(guest.Undelivered);
            loaded = true;
            _log("the guest's RAM has arrived");
        }
        finally
        {
            if (!loaded)
            {
                _memory.DiscardAll();
            }
        }
    }

    private async Task RefuseAsync(StreamConnection connection, StreamException reason)
    {
        _log($"a stream failed ({reason.Code}): {reason.Message}");
        try
        {
            var text = reason.Message[..Math.Min(reason.Message.Length, StreamLimits.MaximumText)];
            await connection.AnswerAsync(new StreamAnswer(false, null, reason.Code, text), _stop.Token);
        }
        catch (Exception exception) when (exception is StreamException or OperationCanceledException)
        {
            // The peer has gone, or this VMM ends.
        }
    }
}
