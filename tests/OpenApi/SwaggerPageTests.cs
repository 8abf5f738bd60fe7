using System.Collections.Concurrent;
using System.Text.Json;
using Fleet.Api.Tests.Support;
using Fleet.Tests.Shared;
using Microsoft.Playwright;

namespace Fleet.OpenApi.Tests;

/// <summary>Swagger UI as a person uses it, in a real browser, with the document's own examples as they are offered.</summary>
public sealed class SwaggerPageTests
{
    private const string Chromium = "/usr/bin/chromium";

    [Fact]
    public async Task Page_Authorized_CreatesAVmReportsAPageAndReadsItBack()
    {
        Requires.File(Chromium, "apt-get install chromium, as .ci/run does");
        await using var api = await ApiHost.StartAsync();
        await api.EnrolAsync("host-a");
        using var playwright = await Playwright.CreateAsync();
        await using var browser = await playwright.Chromium.LaunchAsync(new() { ExecutablePath = Chromium, Args = ["--no-sandbox"] });
        var page = await browser.NewPageAsync();
        var complaints = Watch(page, api.Url);

        await page.GotoAsync(new Uri(api.Url, "/swagger").ToString());
        await AuthorizeAsync(page, api.AdminToken);

        var vm = await ExecuteAsync(page, "VMs-PutVm", "201", ("vm", "vm-1"));
        Assert.Equal("host-a", vm.GetProperty("host").GetString());
        var added = await ExecuteAsync(page, "Pages-AddPages", "200", ("vm", "vm-1"));
        Assert.Equal(1, added.GetProperty("added").GetInt32());
        var pages = await ExecuteAsync(page, "Pages-ListPages", "200", ("vm", "vm-1"), ("limit", "10"));
        var read = Assert.Single(pages.GetProperty("items").EnumerateArray());
        Assert.Equal((5000, "srar"), (read.GetProperty("frame").GetInt64(), read.GetProperty("class").GetString()));

        Assert.Equal(5000, Assert.Single((await api.Admin.GetPagesAsync("vm-1")).Items).Frame);
        Assert.Empty(complaints);
    }

    /// <summary>What the browser's console would show in red, a policy's violations with it; and anything that is fetched from elsewhere.</summary>
    private static ConcurrentQueue<string> Watch(IPage page, Uri origin)
    {
        var complaints = new ConcurrentQueue<string>();
        page.Console += (_, message) =>
        {
            if (message.Type is "error" or "warning")
            {
                complaints.Enqueue($"{message.Type}: {message.Text}");
            }
        };
        page.PageError += (_, error) => complaints.Enqueue(error);
        page.RequestFailed += (_, request) => complaints.Enqueue($"{request.Method} {request.Url}: {request.Failure}");
        page.Request += (_, request) =>
        {
            if (!request.Url.StartsWith(origin.ToString(), StringComparison.Ordinal) && !request.Url.StartsWith("data:", StringComparison.Ordinal))
            {
                complaints.Enqueue($"not from here: {request.Url}");
            }
        };
        return complaints;
    }

    private static async Task AuthorizeAsync(IPage page, string token)
    {
        await page.Locator(".auth-wrapper button.authorize").ClickAsync();
        var dialog = page.Locator(".modal-ux");
        await dialog.Locator("input").FillAsync(token);
        await dialog.Locator("button.authorize").ClickAsync();
        await dialog.Locator("button.btn-done").ClickAsync();
        await page.Locator(".auth-wrapper button.authorize.locked").WaitForAsync();
    }

    /// <returns>The body of the answer, as the page shows it.</returns>
    private static async Task<JsonElement> ExecuteAsync(IPage page, string operation, string status, params (string Name, string Value)[] parameters)
    {
        var block = page.Locator($"#operations-{operation}");
        await block.Locator(".opblock-summary-control").ClickAsync();
        await block.Locator("button.try-out__btn").ClickAsync();
        foreach (var (name, value) in parameters)
        {
            await block.Locator($"tr[data-param-name='{name}'] input").FillAsync(value);
        }

        await block.Locator("button.execute").ClickAsync();
        var answer = block.Locator(".live-responses-table");
        Assert.StartsWith(status, (await answer.Locator("tbody .response-col_status").First.InnerTextAsync()).Trim(), StringComparison.Ordinal);
        return JsonElement.Parse(await answer.Locator("tbody .highlight-code code").First.InnerTextAsync());
    }
}
