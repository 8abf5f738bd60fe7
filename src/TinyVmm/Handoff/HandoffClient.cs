using System.Net.Sockets;
using System.Text.Json;
using Fleet.Contracts.Handoff;
using Fleet.Linux;

namespace Fleet.TinyVmm.Handoff;

/// <summary>Keeps the VMM attached to its host's agent: connects, and connects again for ever; the guest runs on meanwhile.</summary>
public sealed class HandoffClient(string path, HandoffSource source, TimeProvider time, Action<string> log)
{
    private readonly Backoff _backoff = new(Random.Shared);
    private volatile bool _attached;
    private string? _lastProblem;

    /// <summary>The agent has accepted the handoff on the present connection, and every page it knows of is armed.</summary>
    public bool Attached => _attached;

    /// <summary>Ends only by cancellation.</summary>
    public async Task RunAsync(CancellationToken cancellationToken)
    {
        while (true)
        {
            try
            {
                await ConnectOnceAsync(cancellationToken);
                Report("the agent closed the connection");
            }
            catch (Exception exception) when (IsPeerProblem(exception))
            {
                Report(exception.Message);
            }
            finally
            {
                _attached = false;
            }

            await Task.Delay(_backoff.Next(), time, cancellationToken);
        }
    }

    private static bool IsPeerProblem(Exception exception) =>
        exception is SocketException or IOException or InvalidDataException or JsonException or LinuxException;

    private async Task ConnectOnceAsync(CancellationToken cancellationToken)
    {
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await socket.ConnectAsync(new UnixDomainSocketEndPoint(path), cancellationToken);
        await using var session = new HandoffSession(socket, source, time);
        await session.RunAsync(OnAttached, cancellationToken);
    }

    private void OnAttached()
    {
        _attached = true;
        _backoff.Reset();
        _lastProblem = null;
        log($"attached to the agent at {path}");
    }

    // An agent that stays away is worth one line, not one for each attempt.
    private void Report(string problem)
    {
        if (problem != _lastProblem)
        {
            log($"not attached to the agent at {path}: {problem}");
            _lastProblem = problem;
        }
    }
}
