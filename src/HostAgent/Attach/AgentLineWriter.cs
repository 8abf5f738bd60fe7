using System.Net.Sockets;
using System.Text.Json;
using Fleet.Contracts.Handoff;

namespace Fleet.HostAgent.Attach;

/// <summary>Lines to a VMM, one at a time.</summary>
public sealed class AgentLineWriter(Socket socket) : IDisposable
{
    private readonly SemaphoreSlim _one = new(1, 1);

    public async Task SendAsync(AgentLine line, CancellationToken cancellationToken)
    {
        byte[] bytes = [.. JsonSerializer.SerializeToUtf8Bytes(line, HandoffJson.Default.AgentLine), (byte)'\n'];
        await _one.WaitAsync(cancellationToken);
        try
        {
            for (var sent = 0; sent < bytes.Length;)
            {
                sent += await socket.SendAsync(bytes.AsMemory(sent), cancellationToken);
            }
        }
        finally
        {
            _one.Release();
        }
    }

    public void Dispose() => _one.Dispose();
}
