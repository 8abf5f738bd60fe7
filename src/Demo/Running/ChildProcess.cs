using System.Diagnostics;
using Fleet.Linux;
using Fleet.Linux.Processes;

namespace Fleet.Demo.Running;

/// <summary>A program of the fleet as a process of its own; its output goes to a file. Ended, by its own id, when disposed.</summary>
public sealed class ChildProcess : IAsyncDisposable
{
    private const int SIGKILL = 9;
    private const int SIGTERM = 15;
    private const int SIGCONT = 18;
    private const int SIGSTOP = 19;

    private readonly Process _process;
    private readonly Pidfd _pidfd;
    private readonly StreamWriter _log;
    private bool _disposed;

    private ChildProcess(Process process, string logPath)
    {
        (_process, LogPath) = (process, logPath);
        _pidfd = Pidfd.Open(process.Id);
        _log = new StreamWriter(logPath, append: true) { AutoFlush = true };
        process.OutputDataReceived += Write;
        process.ErrorDataReceived += Write;
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
    }

    public int Pid => _process.Id;

    public string LogPath { get; }

    public bool HasExited => _process.HasExited;

    public static ChildProcess Start(string program, string logPath, IEnumerable<string> arguments, IReadOnlyDictionary<string, string>? environment = null)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (var (name, value) in environment ?? new Dictionary<string, string>())
        {
            start.Environment[name] = value;
        }

        return new ChildProcess(Process.Start(start)!, logPath);
    }

    /// <summary>kill -9, and waits until the process is gone.</summary>
    public Task KillAsync() => EndAsync(SIGKILL);

    /// <summary>SIGTERM, and waits for the clean shutdown.</summary>
    /// <returns>The exit code.</returns>
    public async Task<int> TerminateAsync()
    {
        await EndAsync(SIGTERM);
        return _process.ExitCode;
    }

    /// <summary>Waits for a program that ends by itself.</summary>
    /// <returns>The exit code.</returns>
    public async Task<int> EndedAsync(CancellationToken cancellationToken)
    {
        await _process.WaitForExitAsync(cancellationToken);
        return _process.ExitCode;
    }

    /// <summary>SIGSTOP: it lives on and does nothing, like a process of a host that is cut off.</summary>
    public void Suspend() => _pidfd.SendSignal(SIGSTOP);

    /// <summary>SIGCONT.</summary>
    public void Continue() => _pidfd.SendSignal(SIGCONT);

    /// <summary>The end of the log, for messages about a process that failed.</summary>
    public string LogTail(int lines = 15)
    {
        lock (_log)
        {
            return string.Join('\n', File.ReadLines(LogPath).TakeLast(lines));
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _disposed, true))
        {
            return;
        }

        try
        {
            await TerminateAsync().WaitAsync(TimeSpan.FromSeconds(15));
        }
        catch (TimeoutException)
        {
            await KillAsync();
        }

        _pidfd.Dispose();
        _process.Dispose();
        lock (_log)
        {
            _log.Dispose();
        }
    }

    private async Task EndAsync(int signal)
    {
        try
        {
            _pidfd.SendSignal(signal);
        }
        catch (LinuxException exception) when (exception.Errno == Errno.ESRCH)
        {
            // Ended by itself.
        }

        await _process.WaitForExitAsync();
    }

    private void Write(object sender, DataReceivedEventArgs line)
    {
        lock (_log)
        {
            if (line.Data is not null && _log.BaseStream is not null)
            {
                _log.WriteLine(line.Data);
            }
        }
    }
}
