using System.Collections.Concurrent;
using System.Net.Http.Headers;
using Fleet.Api.Startup;
using Fleet.Data.Storage;
using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Microsoft.Extensions.Logging;

namespace Fleet.Api.Tests.Support;

/// <summary>The whole API in this process, on a real Kestrel port and a real folder.</summary>
public sealed class ApiHost : IAsyncDisposable
{
    /// <summary>Everything that is ever logged is captured, requests and statements to the store included.</summary>
    public const string TraceLogs = "--Logging:LogLevel:Default=Trace";

    private readonly bool _ownsFolder;
    private readonly TempFolder _folder;
    private readonly WebApplication _app;

    private ApiHost(TempFolder? folder, TimeProvider? time, Action<StoreOptions>? store, string[] args)
    {
        _ownsFolder = folder is null;
        _folder = folder ?? new TempFolder();
        _app = FleetApp.Create(
            ["--urls", "http://127.0.0.1:0", $"--Fleet:DataFolder={_folder.Path}", .. args],
            builder =>
            {
                builder.Services.AddSingleton<ILoggerProvider>(new CapturingLogs(Logs, args.Contains(TraceLogs) ? LogLevel.Trace : LogLevel.Information));
                builder.Services.RemoveAll<ILoggerFactory>();
                builder.Services.AddSingleton<ILoggerFactory, LoggerFactory>();
                if (time is not null)
                {
                    builder.Services.RemoveAll<TimeProvider>();
                    builder.Services.AddSingleton(time);
                }

                if (store is not null)
                {
                    builder.Services.Configure(store);
                }
            });
    }

    public ConcurrentQueue<LogLine> Logs { get; } = new();

    public IServiceProvider Services => _app.Services;

    public Uri Url { get; private set; } = null!;

    public string AdminToken { get; private set; } = null!;

    public HttpClient Admin { get; private set; } = null!;

    public static Task<ApiHost> StartAsync(TempFolder? folder = null, TimeProvider? time = null, params string[] args) =>
        StartAsync(new ApiHost(folder, time, null, args));

    /// <summary>With interceptors of the store's statements.</summary>
    public static Task<ApiHost> StartWithAsync(Action<StoreOptions> store, TimeProvider? time = null) =>
        StartAsync(new ApiHost(null, time, store, []));

    private static async Task<ApiHost> StartAsync(ApiHost host)
    {
        try
        {
            await host._app.StartAsync();
            host.Url = new Uri(host._app.Urls.First());
            host.AdminToken = (await File.ReadAllTextAsync(host._folder.File("admin.token"))).Trim();
            host.Admin = host.Client(host.AdminToken);
            return host;
        }
        catch
        {
            // Whatever of it had started lets go of the folder.
            await host._app.DisposeAsync();
            throw;
        }
    }

    public HttpClient Client(string? token)
    {
        var client = new HttpClient(new SocketsHttpHandler { MaxConnectionsPerServer = 128, Expect100ContinueTimeout = TimeSpan.FromSeconds(60) }) { BaseAddress = Url, Timeout = TimeSpan.FromSeconds(60) };
        if (token is not null)
        {
            client.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", token);
        }

        return client;
    }

    public Task StopAsync() => _app.StopAsync();

    public async ValueTask DisposeAsync()
    {
        Admin?.Dispose();
        await _app.StopAsync();
        await _app.DisposeAsync();
        if (_ownsFolder)
        {
            _folder.Dispose();
        }
    }
}
